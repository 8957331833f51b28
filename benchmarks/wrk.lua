-- Sends the bodies of a file, one a line, in turn; prints what was found as one line of JSON.
-- wrk -s wrk.lua http://127.0.0.1:PORT/PATH -- FILE

local requests, at = {}, 0

function init(args)
   wrk.method = "POST"
   wrk.headers["Content-Type"] = "application/json"
   for line in io.lines(args[1]) do
      requests[#requests + 1] = wrk.format(nil, nil, nil, line)
   end
end

function request()
   at = at % #requests + 1
   return requests[at]
end

function done(summary, latency)
   local errors = summary.errors
   local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
   local parts = {}
   for _, p in ipairs({50, 75, 90, 95, 99, 99.9}) do
      parts[#parts + 1] = string.format('"%g": %d', p, latency:percentile(p))
   end
   io.write(string.format('\nJSON {"requests": %d, "microseconds": %d, "failed": %d, "percentiles": {%s}}\n',
      summary.requests, summary.duration, failed, table.concat(parts, ", ")))
end
