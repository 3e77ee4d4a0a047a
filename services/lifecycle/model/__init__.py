"""The values of a job's life: plain data, that knows neither wire nor SQL."""
