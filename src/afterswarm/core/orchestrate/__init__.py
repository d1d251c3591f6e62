"""What tasks there should be: planners of services, one question each."""
