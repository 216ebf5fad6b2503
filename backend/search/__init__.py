"""Allocators that divide a budget over layers, and what answers questions about budgets."""
