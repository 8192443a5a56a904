"""Tables, figures and cases: the HTML report and its text forms."""
