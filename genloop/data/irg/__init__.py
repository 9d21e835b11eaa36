"""Traces of seeing, diagnosing and refining images: records, features, rules, faults and executable actions."""
