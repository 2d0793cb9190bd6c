// One POST after another: RATE of them a second whatever the answers do (open loop), or, without RATE, as fast
// as CONNECTIONS clients get their answers (closed loop).
import http from 'k6/http';

const closed = { executor: 'constant-vus', vus: Number(__ENV.CONNECTIONS), duration: __ENV.DURATION };
const open = {
  executor: 'constant-arrival-rate',
  rate: Number(__ENV.RATE),
  timeUnit: '1s',
  duration: __ENV.DURATION,
  preAllocatedVUs: 100,
  maxVUs: 200,
};

export const options = {
  scenarios: { load: __ENV.RATE ? open : closed },
  summaryTrendStats: ['p(50)', 'p(99)'],
  discardResponseBodies: true,
};

const headers = { 'content-type': 'application/json', 'x-weft-to': __ENV.DESTINATION };
if (__ENV.KEY) headers.authorization = `Bearer ${__ENV.KEY}`;

export default function () {
  http.post(__ENV.URL, __ENV.BODY, { headers });
}

export function handleSummary(data) {
  const metric = (name, value) => (data.metrics[name] ? data.metrics[name].values[value] : 0);
  return {
    stdout: JSON.stringify({
      requests: metric('http_reqs', 'count'),
      seconds: data.state.testRunDurationMs / 1000,
      failed: metric('http_req_failed', 'passes'),
      dropped: metric('dropped_iterations', 'count'),
      p50: metric('http_req_duration', 'p(50)'),
      p99: metric('http_req_duration', 'p(99)'),
    }),
  };
}
