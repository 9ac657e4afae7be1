"""What tests share: each helper once. Imports the product, never a test."""
