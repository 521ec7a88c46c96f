"""The built-in corpus: the documentation of Python and of the packages that this project installs."""
