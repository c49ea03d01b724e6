"""The tools by which a model runs commands, for a while or in the background."""
