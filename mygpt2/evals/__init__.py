"""Numbers that can be compared: losses on named texts and HellaSwag, each with its protocol and its error."""
