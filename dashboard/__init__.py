"""The pages of the dashboard: `streamlit run dashboard`.

They read MLflow, reports and models through `asr`, and never import a stage.
"""
