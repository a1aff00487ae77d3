"""Opening a study for writing: creating or resuming it, its lock, folder, event log and copied results."""
