"""Viewfinder: a real-time mobile and location personalization engine."""
