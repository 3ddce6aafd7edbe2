"""What is fitted on a fold and predicts, behind one protocol."""
