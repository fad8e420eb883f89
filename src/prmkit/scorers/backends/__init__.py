"""Where numbers come from: token ids in, numbers out; a backend knows no family."""
