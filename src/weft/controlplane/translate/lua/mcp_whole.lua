-- At the callee's: nothing of an answer goes before all of it is there. Breaks it off midway, the caller's Envoy
-- has not seen any of it, and may try elsewhere.

function envoy_on_response(handle)
  handle:body()
end
