"""Sheets for people to judge images on."""
