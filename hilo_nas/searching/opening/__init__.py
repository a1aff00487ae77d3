"""Opening a study for writing: creation or resumption, lock, folder checks, event log and copied results."""
