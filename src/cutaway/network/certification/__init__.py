"""What is checked of an anatomy, on plain and on noisy passes, and what is refused because of it."""
