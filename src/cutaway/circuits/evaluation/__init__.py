"""How a circuit is judged: faithfulness, completeness, minimality, hypothesis tests, stability, known truth."""
