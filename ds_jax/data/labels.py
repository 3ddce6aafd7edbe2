"""The emotions that utterances are labelled with."""

# The paper's seven emotions in alphabetical order; a label's index is its position here.
LABELS = ("ANGER", "DISGUST", "FEAR", "JOY", "NEUTRAL", "SADNESS", "SURPRISE")
