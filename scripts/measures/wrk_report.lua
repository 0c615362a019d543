-- Has wrk print its counts, and its times in microseconds, as a line of JSON: it rounds what it prints itself.
done = function(summary, latency)
    io.write(string.format('{"answered":%d,"seconds":%.6f,"p50_us":%d,"p99_us":%d,"errors":%d}\n', summary.requests,
        summary.duration / 1e6, latency:percentile(50), latency:percentile(99), summary.errors.connect +
        summary.errors.read + summary.errors.write + summary.errors.status + summary.errors.timeout))
end
