"""What scores an answer in ppo and grpo: named rewards, a person's own function, a reward model.

Here lives scoring only; what a trainer does with a score is in `trainers`.
"""
