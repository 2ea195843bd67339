"""For identifier schemes whose codes are learnt: how a tokenizer network is trained, and what schemes share."""
