"""Files and folders: whole or not there, owned, hashed, and never over anything of the user's."""
