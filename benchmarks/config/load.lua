-- The same POST as load.js makes, for wrk: arguments are the destination and the body.
function init(args)
  wrk.method = "POST"
  wrk.body = args[2]
  wrk.headers["content-type"] = "application/json"
  wrk.headers["x-weft-to"] = args[1]
  local key = os.getenv("KEY")
  if key ~= nil and key ~= "" then
    wrk.headers["authorization"] = "Bearer " .. key
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format(
    '\n{"requests": %d, "seconds": %f, "failed": %d, "dropped": 0, "p50": %f, "p99": %f}\n',
    summary.requests, summary.duration / 1e6, failed, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3
  ))
end
