"""How the code is built, in numbers: classes, folders, circles, and the way of a run through the files."""
