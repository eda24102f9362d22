"""The command `rain`: one module per noun, one output layer."""
