"""Configuration of a client and of its accounts: arguments and files, validated. Opens nothing."""
