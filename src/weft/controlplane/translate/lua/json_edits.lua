-- Changes in a text of JSON. Runs behind json.lua.

-- Where to put members into the object that begins at `first`: behind its bracket, before what is there.
local function insertion(text, first, added)
  local comma = byte(text, skip_space(text, first + 1)) == 125 and "" or ","
  return { first + 1, first, table.concat(added, ",") .. comma }
end

-- The text with its edits made: each the first and the last place, and what stands there instead.
local function edited(text, edits)
  table.sort(edits, function(one, other) return one[1] < other[1] end)
  local parts, at = {}, 1
  for _, edit in ipairs(edits) do
    parts[#parts + 1] = sub(text, at, edit[1] - 1)
    parts[#parts + 1] = edit[3]
    at = edit[2] + 1
  end
  parts[#parts + 1] = sub(text, at)
  return table.concat(parts)
end
