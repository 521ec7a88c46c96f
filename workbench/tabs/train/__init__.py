"""Train: the draft a person is making, what it will take, the queue, and their markup."""
