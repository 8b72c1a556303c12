"""How each method is trained: a module with `build(setup)` for each, on TRL's trainers where there is one."""
