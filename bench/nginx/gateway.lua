-- Keys and limit of nginx as a gateway: a key must be one of the file, and may ask so often in each minute.

local floor = math.floor
local exit, now, var = ngx.exit, ngx.now, ngx.var
local minutes = ngx.shared.minutes

local LIMIT = 1000000

local keys = {}
for key in io.lines(ngx.config.prefix() .. "keys") do
    keys[key] = true
end

local M = {}

function M.admit()
    local key = var.http_x_api_key
    if not keys[key or ""] then
        return exit(401)
    end
    -- The key's entry counts the calls of this minute; it leaves the dictionary with its minute.
    if minutes:incr(key, 1, 0, 60 - floor(now()) % 60) > LIMIT then
        return exit(429)
    end
end

return M
