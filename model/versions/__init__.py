"""What a training leaves, and which version is champion."""
