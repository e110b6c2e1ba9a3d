-- Says of a request who its user is, of those that policyd would take for one: {is = "nobody"}, or {is = "somebody",
-- user = {id, issuer, subject, claims}}, where claims are lists of texts, numbers and booleans by their whole names.
-- It says nothing where it is not sure; then the request is policyd's. Bytes are counted where policyd counts
-- characters, so that what is short enough here is short enough there.

local MAX_CLAIMS, MAX_VALUES, MAX_DEPTH, MAX_TEXT, EXACT = 256, 1024, 8, 8192, 9007199254740992

local function is_text(value)
  return type(value) == "string" and #value <= MAX_TEXT and not value:find("%z")
end

-- the elements of a list, or nil; what is no text, number or boolean is no element
local function elements(list)
  local found = {}
  for _, value in pairs(list) do
    local kind = type(value)
    if kind == "string" then
      if not is_text(value) then return nil end
    elseif kind == "number" then
      if not (math.abs(value) < EXACT) then return nil end
    end
    if kind == "string" or kind == "number" or kind == "boolean" then found[#found + 1] = value end
  end
  if #found == 0 or #found > MAX_VALUES then return nil end
  return found
end

-- words, as Python divides a text into them, as far as spaces are ASCII's
local function words(text)
  if not is_text(text) or text:find("[\28-\31\128-\255]") then return nil end
  local found = {}
  for word in text:gmatch("%S+") do found[#found + 1] = word end
  if #found == 0 or #found > MAX_VALUES then return nil end
  return found
end

-- adds the claims of an object to those that were `seen`, and those that are wanted to `kept`; nil where not sure
local function add(members, above, depth, split, wanted, seen, kept)
  if depth > MAX_DEPTH then return nil end
  for name, value in pairs(members) do
    if type(name) ~= "string" then return nil end
    local whole = above .. name
    local first = type(value) == "table" and next(value) or nil
    if type(value) == "table" and first == nil then return nil end -- an empty list and an empty object look alike
    if type(first) == "string" then
      if not add(value, whole .. ".", depth + 1, split, wanted, seen, kept) then return nil end
    else
      if seen.names[whole] or seen.count == MAX_CLAIMS or not is_text(whole) then return nil end
      seen.names[whole] = true
      seen.count = seen.count + 1
      local found
      if type(value) == "string" and split[whole] then
        found = words(value)
      else
        found = elements(type(value) == "table" and value or { value })
      end
      if found == nil then return nil end
      if wanted[whole] then kept[whole] = found end
    end
  end
  return true
end

local function user_of(payload, issuers, wanted)
  local issuer, subject = payload.iss, payload.sub
  if not is_text(issuer) or not is_text(subject) or subject == "" or issuers[issuer] == nil then return nil end
  local seen, kept = { names = {}, count = 0 }, {}
  if not add(payload, "", 0, issuers[issuer].words or {}, wanted, seen, kept) then return nil end
  return { id = issuer .. "/" .. subject, issuer = issuer, subject = subject, claims = kept }
end

function envoy_on_request(handle)
  local asked = handle:filterContext():get("asked")
  if asked == nil then return end
  local metadata = handle:streamInfo():dynamicMetadata()
  local written = metadata:get(asked.tokens) or {}
  local payload, count = nil, 0
  for name, value in pairs(written) do
    if name ~= asked.failed then
      payload, count = value, count + 1
    elseif value.code ~= 1 then -- 1: there is no token
      return
    end
  end
  if count > 1 or (count == 1 and type(payload) ~= "table") then return end
  if count == 1 then
    local user = user_of(payload, asked.issuers or {}, asked.claims or {})
    if user == nil then return end
    metadata:set(asked.said, "user", user)
  end
  metadata:set(asked.said, "is", count == 1 and "somebody" or "nobody")
  handle:clearRouteCache()
end
