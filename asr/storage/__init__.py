"""Files that appear whole or not at all, hashes, Arrow rows, and the cache of computed files.

Every stage ends here and the next one begins here. Imports `errors`, `paths`.
"""
