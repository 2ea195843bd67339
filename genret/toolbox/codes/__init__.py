"""For identifier schemes with learned codes: training of the tokenizer network, and shared parts."""
