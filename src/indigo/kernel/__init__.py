"""The words everybody uses; imports nothing of ours."""
