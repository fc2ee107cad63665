-- Requests for wrk: BODIES is a file with one JSON body a line, PAUSE the milliseconds that each
-- connection waits on average before its next request: any time up to twice as long, so that they do
-- not come all at once.
local bodies = {}
for line in io.lines(os.getenv("BODIES")) do
  bodies[#bodies + 1] = line
end

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

local place = 0
function request()
  place = place % #bodies + 1
  return wrk.format(nil, "/classify", nil, bodies[place])
end

local pause = tonumber(os.getenv("PAUSE") or "0")
if pause > 0 then
  function delay()
    return math.random(0, 2 * pause)
  end
end
