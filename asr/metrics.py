"""Names of the metrics in the journal, in MLflow and in steps.csv. Imports nothing."""

TRAIN_LOSS = "train/loss"
LEARNING_RATE = "train/learning_rate"
VALIDATION_LOSS = "validation/loss"
VALIDATION_WER = "validation/wer"
VALIDATION_CER = "validation/cer"
VALIDATION_WER_BOUNDED = "validation/wer_bounded"
VALIDATION_CER_BOUNDED = "validation/cer_bounded"
VALIDATION_BEST_STEP = "validation/best_step"  # the step whose weights would be kept by now
TEST_WER = "test/wer"
TEST_CER = "test/cer"

# The columns of steps.csv besides `step`, and their names in MLflow.
STEP_METRICS = {
    "train_loss": TRAIN_LOSS,
    "learning_rate": LEARNING_RATE,
    "validation_loss": VALIDATION_LOSS,
    "validation_wer": VALIDATION_WER,
}
STEP_COLUMNS = ("step", *STEP_METRICS)
