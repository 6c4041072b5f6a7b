"""Other tools that name localizations: their files, their classes in our words, our rows beside theirs."""
