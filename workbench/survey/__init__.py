"""What a source of text holds, found out beside the page: one look at a time, and only while somebody asks for it."""
