"""Who answers: clients for models, behind one contract."""
