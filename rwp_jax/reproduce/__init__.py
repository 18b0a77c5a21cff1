"""The paper's tables and figures, each by one command: which runs they need, and what is made of them."""
