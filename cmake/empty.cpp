// A folder without sources yet still is a target.
