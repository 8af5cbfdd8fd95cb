//! What must be remembered that neither the engine nor the disk remembers: the only room that names SQLite.
