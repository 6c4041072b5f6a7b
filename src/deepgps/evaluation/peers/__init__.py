"""Other tools that predict localizations: their files, their classes in ours, our metrics beside theirs."""
