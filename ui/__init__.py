"""The page: Gradio and Plotly over `backend.service`; never torch, transformers or duckdb."""
