"""Reading tables, and putting them into the shapes that the models need."""
