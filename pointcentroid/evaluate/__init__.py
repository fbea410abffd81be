"""How good are these weights? One function for each kind of question, each beside its baseline."""
