"""Better answers of a bundle that is there: a bias per label, or a head found on examples."""
