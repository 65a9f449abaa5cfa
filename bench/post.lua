-- The load: the seed's POST, with the keys of a file in turn. Arguments after `--`: KEYS ACCEPT.
-- All requests are made before the clock starts. Prints one line of JSON, which run.py reads.

local requests, next_request = {}, 0

function init(args)
    wrk.method = "POST"
    wrk.body = '{"secret":"JBSWY3DPEHPK3PXP","digits":6,"period":30}'
    wrk.headers["Content-Type"] = "application/json"
    wrk.headers["Accept"] = args[2]
    for key in io.lines(args[1]) do
        wrk.headers["X-API-Key"] = key
        requests[#requests + 1] = wrk.format()
    end
end

function request()
    next_request = next_request % #requests + 1
    return requests[next_request]
end

function done(summary, latency)
    local errors = summary.errors
    print(string.format(
        '{"requests":%d,"microseconds":%d,"refused":%d,"broken":%d,"p50":%d,"p99":%d}',
        summary.requests, summary.duration, errors.status,
        errors.connect + errors.read + errors.write + errors.timeout,
        latency:percentile(50), latency:percentile(99)))
end
