-- What wrk asks, and what it prints: requests per second, the median and the 99th percentile of the time to the answer
-- in milliseconds, and how many answers were errors.
wrk.method = os.getenv("METHOD")

function done(summary, latency)
    local failed = summary.errors
    print(string.format("figures %.0f %.3f %.3f %d", summary.requests / summary.duration * 1e6,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
        failed.connect + failed.read + failed.write + failed.status + failed.timeout))
end
